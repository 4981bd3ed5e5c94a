"""python -m fmnist_lit.evaluate: how good is a trained classifier, and where does it err?"""
