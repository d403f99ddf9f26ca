"""Small models over vectors and tokens: logistic heads, nearest neighbours, Bradley-Terry strengths."""
