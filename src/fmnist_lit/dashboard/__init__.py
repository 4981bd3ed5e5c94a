"""What TensorBoard shows beside the figures of each epoch: what the network does, and what it is like inside."""
