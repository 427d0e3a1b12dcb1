"""Registry: packages, registers, promotes and releases encoders."""
