"""Every route of the portal but the sign-in's.

``gateway.app``::

    portal = Portal(steps=steps, csrf=csrf, blobs=blobs, letters=letters, press=press, fictitious=…)
    app.include_router(routes.router(portal))
    SignIn(…, pages=SignInPages(portal.chrome))
"""

from __future__ import annotations

from fastapi import APIRouter

from gateway.portal.attachment_routes import AttachmentPages
from gateway.portal.copies_routes import CopyPages
from gateway.portal.error_box_routes import ErrorBoxPages
from gateway.portal.fiche_routes import FichePages
from gateway.portal.imaging_awaited_routes import AwaitedPages
from gateway.portal.imaging_detaching_routes import DetachingPages
from gateway.portal.imaging_routes import ImagingPages
from gateway.portal.imaging_sending_routes import SendingPages
from gateway.portal.organiser_routes import OrganiserPages
from gateway.portal.pages import Portal, PublicPages
from gateway.portal.physician_routes import PhysicianPages
from gateway.portal.plan_routes import PlanPages
from gateway.portal.received_routes import ReceivedPages
from gateway.portal.report_endings import ReportEndings
from gateway.portal.report_routes import ReportPages
from gateway.portal.settings_routes import SettingsPages
from gateway.portal.viewer_routes import ViewerPages

__all__ = ["router"]


def router(portal: Portal) -> APIRouter:
    """Gather the routes of the portal."""
    gathered = APIRouter(include_in_schema=False)
    kinds = (
        PublicPages,
        SettingsPages,
        PhysicianPages,
        FichePages,
        ViewerPages,
        CopyPages,
        SendingPages,
        DetachingPages,
        ReportEndings,
        ReportPages,
        ReceivedPages,
        PlanPages,
        OrganiserPages,
        ErrorBoxPages,
        ImagingPages,
        AwaitedPages,
        AttachmentPages,
    )
    for pages in kinds:
        gathered.include_router(pages(portal).router())
    return gathered
