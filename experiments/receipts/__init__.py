"""An OCR reader on scanned receipts at six image sizes: does routing pay on real documents?"""
