"""Translation of images into styles, and the files written from the results."""
