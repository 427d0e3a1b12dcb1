"""The embedded Earth: terrain, land cover, seasons, weather and true change, with numpy alone."""
