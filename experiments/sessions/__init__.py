"""Sessions of somebody who has never seen the package, recorded: what is typed and what is said."""
