"""A simulated Livepeer network on real sockets, after the published behaviour of its parts."""
