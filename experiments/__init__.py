"""One folder per published model, table or figure: a TOML file, a short driver, recorded results."""
