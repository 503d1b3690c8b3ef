"""MSSanté: the gateway's mailbox at its operator.

Out: `envelope` (MIME), `xdm` (the zip of a report), `submission` (SMTP), `outcome` (what the outbox is told). In:
`mailbox` (IMAP), `receipts` (what an incoming mail is; DSN and MDN). `account` is how both servers are reached.
"""
