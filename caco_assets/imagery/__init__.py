"""Which pixels."""
