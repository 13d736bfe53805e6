"""One folder per model, table or figure: a TOML file, a short driver, recorded results."""
