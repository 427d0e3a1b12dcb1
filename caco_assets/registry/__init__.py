"""Which version serves?"""
