"""The images of a dossier: which studies and series there are, and the object to begin with.

Promises: the dossier's and the studies' predicates of `gateway.rcp.access` stand in every query; what the caller may
not see is the 404 of what does not exist. The bytes come from the DICOMweb wire, which asks for rights again.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, not_, select
from sqlalchemy.orm import Session, selectinload

from gateway.model.audit import AuditFacts
from gateway.model.dossier import Dossier
from gateway.model.imaging import Instance, Series, Study, StudyDossier
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.dossiers import visible_dossier
from gateway.portal.key_images import key_images
from gateway.portal.render import short_date
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["FILMED", "PICTURED", "attached_studies", "images", "study_name", "viewer_url"]

#: A picture without JavaScript is drawn at most so large.
_STILL: Final = 1024
#: Beyond these a video of the dossier is refused like a picture that has no decoder.
_VIDEOS: Final = 1000
#: MPEG-2, H.264 and H.265: no frame of them can be drawn `[PS3.5 8.2.5 to 8.2.12]`.
FILMED: Final = Instance.transfer_syntax_uid.startswith("1.2.840.10008.1.2.4.10")
PICTURED: Final = Instance.rows.is_not(None) & not_(FILMED)


def viewer_url(dossier_id: uuid.UUID, series_uid: str, instance_uid: str = "") -> str:
    """Return the address that shows a series, from one of its objects on."""
    address = f"/dossiers/{dossier_id}/images?serie={series_uid}"
    return f"{address}&objet={instance_uid}" if instance_uid else address


def attached_studies(session: Session, caller: Caller, row: Dossier) -> list[Study]:
    """Return the studies of a dossier that exist for this caller, the latest first."""
    return list(
        session.scalars(
            select(Study)
            .join(StudyDossier, StudyDossier.study_id == Study.id)
            .where(StudyDossier.dossier_id == row.id, access.studies(caller))
            .options(selectinload(Study.series))
            .order_by(Study.started_at.desc().nulls_last(), Study.id)
        )
    )


def study_name(study: Study) -> str:
    """Name a study in a list: its description, and its day."""
    what = study.study_description or ", ".join(study.modalities) or "Étude"
    day = study.started_at.date() if study.started_at else study.started_on
    return f"{what} du {short_date(day)}" if day else what


@dataclass(frozen=True, slots=True)
class _Held:
    """What a series holds: frames to look at, and objects without any."""

    frames: int
    documents: int
    videos: tuple[str, ...] = ()


def images(
    session: Session,
    caller: Caller,
    now: datetime,
    dossier_id: uuid.UUID,
    series_uid: str = "",
    instance_uid: str = "",
    *,
    keyed: bool = False,
) -> tuple[v.Viewer, list[AuditFacts]]:
    """Return the page, from the series and the object asked for, else from the first that there is.

    Parameters
    ----------
    keyed
        The object asked for is a selection: what it names is looked at, if it is one.

    Raises
    ------
    NotFound
        The dossier, or a series asked for in it, does not exist for this caller.
    """
    row = visible_dossier(session, caller, dossier_id)
    studies = attached_studies(session, caller, row)
    held = _held(session, studies)
    ordered = [
        (study, series)
        for study in studies
        for series in sorted(study.series, key=lambda one: (one.series_number or 0, one.series_instance_uid))
        if series.id in held
    ]
    pictured = [one for one in ordered if held[one[1].id].frames] or ordered
    chosen = next((one for one in ordered if one[1].series_instance_uid == series_uid), None)
    if series_uid and chosen is None:
        # What was written is not quoted: it may be anything.
        raise access.hidden(caller, "Dossier", dossier_id, text="Ces images n’existent pas dans ce dossier.")
    if chosen is None and pictured:
        chosen = pictured[0]
    selections = key_images(session, studies, f"/dossiers/{row.id}/images")
    page = v.Viewer(
        reference=row.reference,
        patient=words.patient_view(row.record, now.date(), row.partner.name if row.partner else ""),
        back_url=f"/dossiers/{row.id}",
        studies=tuple(
            v.ViewerStudy(
                description=study.study_description or "Étude d’imagerie",
                at=words.local(study.started_at, row.session.zone) if study.started_at else None,
                series=tuple(
                    _series(row, study, series, held[series.id], selected=chosen is not None and chosen[1] is series)
                    for owner, series in ordered
                    if owner is study
                ),
                keys=selections.get(study.id, ()),
            )
            for study in studies
        ),
        still=_still(session, row, *chosen, instance_uid) if chosen else None,
        chosen=chosen[1].series_instance_uid if chosen else "",
        keyed=keyed and any(one.instance_uid == instance_uid for them in selections.values() for one in them),
        owner=hashlib.sha256(f"mesures|{caller.session}".encode()).hexdigest()[:32] if caller.session else "",
    )
    line = access.facts(
        caller, "consultation", persons=(row.record_id,), dossier=row.id, object_type="Images", object_id=str(row.id)
    )
    return page, [line]


def _held(session: Session, studies: list[Study]) -> dict[uuid.UUID, _Held]:
    wanted = [series.id for study in studies for series in study.series]
    frames = func.coalesce(func.sum(func.coalesce(Instance.number_of_frames, 1)).filter(PICTURED), 0)
    documents = func.count().filter(Instance.rows.is_(None))
    rows = session.execute(
        select(Instance.series_id, frames, documents).where(Instance.series_id.in_(wanted)).group_by(Instance.series_id)
    )
    videos: dict[uuid.UUID, list[str]] = {}
    for series_id, uid, syntax in session.execute(
        select(Instance.series_id, Instance.sop_instance_uid, Instance.transfer_syntax_uid)
        .where(Instance.series_id.in_(wanted), Instance.rows.is_not(None), FILMED)
        .order_by(Instance.instance_number.nulls_last(), Instance.sop_instance_uid)
        .limit(_VIDEOS)
    ):
        videos.setdefault(series_id, []).append(f"{uid}={syntax}")
    return {
        series_id: _Held(int(drawn), int(others), tuple(videos.get(series_id, ()))) for series_id, drawn, others in rows
    }


def _series(row: Dossier, study: Study, series: Series, held: _Held, *, selected: bool) -> v.ViewerSeries:
    parent = f"/dicom-web/studies/{study.study_instance_uid}/series/{series.series_instance_uid}"
    return v.ViewerSeries(
        study_uid=study.study_instance_uid,
        series_uid=series.series_instance_uid,
        label=series.series_description or f"Série {series.series_number or ''}".strip(),
        modality=series.modality or "",
        images=held.frames,
        documents=held.documents,
        url=viewer_url(row.id, series.series_instance_uid),
        thumbnail_url=f"{parent}/thumbnail" if held.frames else "",
        selected=selected,
        videos=held.videos,
    )


def _still(session: Session, row: Dossier, study: Study, series: Series, wanted: str) -> v.ViewerStill | None:
    found = session.execute(
        select(Instance.sop_instance_uid, Instance.rows, Instance.columns, FILMED)
        .where(Instance.series_id == series.id)
        .order_by(Instance.instance_number.nulls_last(), Instance.sop_instance_uid)
    ).all()
    uids = [uid for uid, *_ in found]
    at = uids.index(wanted) if wanted in uids else 0
    uid, rows, columns, filmed = found[at]
    parent = f"/dicom-web/studies/{study.study_instance_uid}/series/{series.series_instance_uid}/instances/{uid}"
    large = rows is not None and max(rows, columns or 0) > _STILL
    shown = "?accept=application/dicom%3B%20transfer-syntax%3D*" if filmed else "/rendered"
    return v.ViewerStill(
        instance_uid=uid,
        url=f"{parent}{shown}" + (f"?viewport={_STILL},{_STILL}" if large and not filmed else ""),
        alt=f"Image {at + 1} sur {len(found)}",
        number=at + 1,
        count=len(found),
        pictured=rows is not None and not filmed,
        video=rows is not None and filmed,
        previous_url=viewer_url(row.id, series.series_instance_uid, uids[at - 1]) if at else "",
        next_url=viewer_url(row.id, series.series_instance_uid, uids[at + 1]) if at + 1 < len(uids) else "",
    )
