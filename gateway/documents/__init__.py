"""The report in its forms: national CDA (`frcp`), PDF/A (`pdf`), from the frozen facts of `gateway.rcp.report_content`."""
