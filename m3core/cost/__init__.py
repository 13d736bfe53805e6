"""What an answer costs: operations, memory and the least time on a device."""
