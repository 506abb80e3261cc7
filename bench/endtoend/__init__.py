"""What bench/run measures with: processes, the receiver, workloads, senders, peers, and the report."""
