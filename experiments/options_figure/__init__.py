"""One image asked at every option, as a picture: what is recorded, and how it is drawn."""
