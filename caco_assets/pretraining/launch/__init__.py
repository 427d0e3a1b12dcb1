"""Launchers of training: inline, separate process, torchrun, Ray."""
