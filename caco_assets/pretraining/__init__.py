"""What has changed?"""
