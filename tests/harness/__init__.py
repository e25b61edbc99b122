"""What the tests share: the simulated network with a tester, processes, clocks, and waiting."""
