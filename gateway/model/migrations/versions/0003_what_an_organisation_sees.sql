-- The dossiers of a patient, whatever their state.
CREATE INDEX ix_dossier_record_id ON dossier (record_id);

-- Whether a representation is of an organisation's own dossiers or records. A function, because the planner would plan
-- these few look-ups anew for each search, at twice the cost of the search; its own plans are kept.
CREATE FUNCTION rcp_of_partner(of uuid, in_dossier uuid, of_record uuid) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SET plan_cache_mode = 'force_generic_plan' AS $$
BEGIN
    IF in_dossier IS NOT NULL THEN
        RETURN EXISTS (SELECT FROM dossier WHERE dossier.id = in_dossier AND dossier.partner_id = of);
    END IF;
    RETURN EXISTS (SELECT FROM patient_record WHERE patient_record.id = of_record AND patient_record.partner_id = of)
        OR EXISTS (SELECT FROM dossier WHERE dossier.record_id = of_record AND dossier.partner_id = of);
END
$$;
