"""The HTTP interface: routes, OpenAI's requests and answers, errors, metrics, the process."""
