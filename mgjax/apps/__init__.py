"""Programs over several sections: encoding, pairs, recipes, weights, serving."""
