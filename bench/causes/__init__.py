"""What the time of a pass goes into: a call profiled after the timing, its operators or kernels put down to causes."""
