"""Checks on journals: have they lost answers, and are they where they belong?"""
