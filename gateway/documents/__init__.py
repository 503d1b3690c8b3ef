"""The report in its forms: national CDA (`frcp`) and PDF/A (`pdf`), from the facts of `gateway.rcp.report_content`."""
