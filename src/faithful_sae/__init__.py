"""FaithfulSAE: do sparse autoencoders capture a model better when it wrote their training text?"""
