"""Images of strangers, from data URLs and listed hosts to RGB pixels."""
