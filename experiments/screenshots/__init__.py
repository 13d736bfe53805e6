"""Pictures of every page that a person sees, at four widths, light and dark, and on paper."""
