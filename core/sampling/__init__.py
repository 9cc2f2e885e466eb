"""Images translated into styles, and the files made of them."""
