"""Scale-ALiBi: train on Salibi stores, evaluate, and give out embeddings."""
