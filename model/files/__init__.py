"""Read and write tensor files, strictly."""
