"""An encoder packaged as an MLflow model."""
