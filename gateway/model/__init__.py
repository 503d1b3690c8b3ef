"""The canonical model: what is kept, one module an aggregate.

Reading order: ``store`` (base, types, engine), ``network``, ``partner``, ``person``, ``directory``, ``meeting``,
``dossier``, ``report``, ``imaging``, ``message``, ``subscription``, ``audit``, ``representation``. Nothing here knows a
protocol, opens a transaction of its own or decides a right.
"""
