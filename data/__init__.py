"""Code that creates, prepares and downloads data sets. Git ignores the images in the sub-folders."""
