"""A simulated Livepeer network on real sockets, after the published behavior of its parts."""
