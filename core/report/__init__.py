"""What a run tells about itself on the disk: a log and pages."""
