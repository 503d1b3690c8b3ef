"""What the gateway does, in its users' words: verbs over the model; no protocol is known here.

A verb receives an open `step.Step`, locks what it changes and never commits; what it needs from above stands in
`ports`.

Reading order: `access` (who may), `step` (one change, one commit), `ports`; then along a dossier's life: `registry`,
`identity`, `directory`, `calendar`, `sessions`, `inscription` with `session_choice` and `dossier_states`, `imaging`,
`notification` with `notice_rules`, `contribution`, `report`, `mail_events`; mails are worded by `letters`, `templates`
and `french` and posted by `mailing`; `work_list` is what only people may decide.

Not promised: authentication, which is each wire's, and delivery, which is the outbox's.
"""
