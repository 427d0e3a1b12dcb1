"""What is a champion used for?"""
