"""What answers behind the HTTP interface: this process, replicas under Ray, a vLLM server."""
