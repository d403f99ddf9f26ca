"""Battles of the Chatbot Arena and their stored vectors, which `sw_ranking` ranks models by."""
