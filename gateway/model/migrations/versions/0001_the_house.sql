-- The tables and indexes of the first release, as SQLAlchemy wrote them from gateway/model; frozen.
-- Later changes are revisions of their own; tests/unit/model/test_schema.py compares the result with the models.

CREATE TABLE audit_line (
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    id UUID NOT NULL,
    recorded TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor_id TEXT,
    dossier UUID,
    persons UUID[] NOT NULL,
    payload BYTEA NOT NULL,
    mac BYTEA NOT NULL,
    CONSTRAINT pk_audit_line PRIMARY KEY (seq),
    CONSTRAINT uq_audit_line_id UNIQUE (id)
);
CREATE INDEX ix_audit_line_actor_id ON audit_line (actor_id);
CREATE INDEX ix_audit_line_dossier ON audit_line (dossier);
CREATE INDEX ix_audit_line_persons ON audit_line USING gin (persons);
CREATE INDEX ix_audit_line_position ON audit_line (xid, seq);
CREATE INDEX ix_audit_line_recorded ON audit_line (recorded);

CREATE TABLE audit_seal (
    number BIGINT NOT NULL,
    upto_xid xid8 NOT NULL,
    upto_seq BIGINT NOT NULL,
    lines INTEGER NOT NULL,
    chain BYTEA NOT NULL,
    sealed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    anchor_of DATE,
    CONSTRAINT pk_audit_seal PRIMARY KEY (number),
    CONSTRAINT uq_audit_seal_anchor_of UNIQUE (anchor_of)
);

CREATE TABLE fhir_appointment (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_date TSTZRANGE,
    p_actor TEXT[],
    p_practitioner TEXT[],
    p_location TEXT[],
    p_status TEXT[],
    p_slot TEXT[],
    p_service_type TEXT[],
    p_specialty TEXT[],
    p_supporting_info TEXT[],
    CONSTRAINT pk_fhir_appointment PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_appointment_dossier ON fhir_appointment (dossier_id) WHERE current;
CREATE INDEX ix_fhir_appointment_p_actor ON fhir_appointment USING gin (p_actor) WHERE current;
CREATE INDEX ix_fhir_appointment_p_date ON fhir_appointment USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_appointment_p_identifier ON fhir_appointment USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_appointment_p_location ON fhir_appointment USING gin (p_location) WHERE current;
CREATE INDEX ix_fhir_appointment_p_practitioner ON fhir_appointment USING gin (p_practitioner) WHERE current;
CREATE INDEX ix_fhir_appointment_p_service_type ON fhir_appointment USING gin (p_service_type) WHERE current;
CREATE INDEX ix_fhir_appointment_p_slot ON fhir_appointment USING gin (p_slot) WHERE current;
CREATE INDEX ix_fhir_appointment_p_specialty ON fhir_appointment USING gin (p_specialty) WHERE current;
CREATE INDEX ix_fhir_appointment_p_status ON fhir_appointment USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_appointment_p_supporting_info ON fhir_appointment USING gin (p_supporting_info) WHERE current;
CREATE INDEX ix_fhir_appointment_partner ON fhir_appointment (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_appointment_record ON fhir_appointment (record_id) WHERE current;
CREATE INDEX ix_fhir_appointment_root ON fhir_appointment (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_appointment_updated ON fhir_appointment (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_appointment_current ON fhir_appointment (id) WHERE current;

CREATE TABLE fhir_auditevent (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_date TSTZRANGE,
    p_patient TEXT[],
    p_entity TEXT[],
    p_agent TEXT[],
    p_type TEXT[],
    p_subtype TEXT[],
    p_outcome TEXT[],
    CONSTRAINT pk_fhir_auditevent PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_auditevent_dossier ON fhir_auditevent (dossier_id) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_agent ON fhir_auditevent USING gin (p_agent) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_date ON fhir_auditevent USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_entity ON fhir_auditevent USING gin (p_entity) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_outcome ON fhir_auditevent USING gin (p_outcome) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_patient ON fhir_auditevent USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_subtype ON fhir_auditevent USING gin (p_subtype) WHERE current;
CREATE INDEX ix_fhir_auditevent_p_type ON fhir_auditevent USING gin (p_type) WHERE current;
CREATE INDEX ix_fhir_auditevent_partner ON fhir_auditevent (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_auditevent_record ON fhir_auditevent (record_id) WHERE current;
CREATE INDEX ix_fhir_auditevent_root ON fhir_auditevent (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_auditevent_updated ON fhir_auditevent (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_auditevent_current ON fhir_auditevent (id) WHERE current;

CREATE TABLE fhir_binary (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    CONSTRAINT pk_fhir_binary PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_binary_dossier ON fhir_binary (dossier_id) WHERE current;
CREATE INDEX ix_fhir_binary_partner ON fhir_binary (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_binary_record ON fhir_binary (record_id) WHERE current;
CREATE INDEX ix_fhir_binary_root ON fhir_binary (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_binary_updated ON fhir_binary (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_binary_current ON fhir_binary (id) WHERE current;

CREATE TABLE fhir_communication (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_based_on TEXT[],
    p_part_of TEXT[],
    p_sender TEXT[],
    p_recipient TEXT[],
    p_sent TSTZRANGE,
    p_received TSTZRANGE,
    p_status TEXT[],
    p_category TEXT[],
    CONSTRAINT pk_fhir_communication PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_communication_dossier ON fhir_communication (dossier_id) WHERE current;
CREATE INDEX ix_fhir_communication_p_based_on ON fhir_communication USING gin (p_based_on) WHERE current;
CREATE INDEX ix_fhir_communication_p_category ON fhir_communication USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_communication_p_identifier ON fhir_communication USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_communication_p_part_of ON fhir_communication USING gin (p_part_of) WHERE current;
CREATE INDEX ix_fhir_communication_p_patient ON fhir_communication USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_communication_p_received ON fhir_communication USING gist (p_received) WHERE current;
CREATE INDEX ix_fhir_communication_p_recipient ON fhir_communication USING gin (p_recipient) WHERE current;
CREATE INDEX ix_fhir_communication_p_sender ON fhir_communication USING gin (p_sender) WHERE current;
CREATE INDEX ix_fhir_communication_p_sent ON fhir_communication USING gist (p_sent) WHERE current;
CREATE INDEX ix_fhir_communication_p_status ON fhir_communication USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_communication_p_subject ON fhir_communication USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_communication_partner ON fhir_communication (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_communication_record ON fhir_communication (record_id) WHERE current;
CREATE INDEX ix_fhir_communication_root ON fhir_communication (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_communication_updated ON fhir_communication (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_communication_current ON fhir_communication (id) WHERE current;

CREATE TABLE fhir_composition (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_type TEXT[],
    p_status TEXT[],
    p_date TSTZRANGE,
    p_author TEXT[],
    p_encounter TEXT[],
    CONSTRAINT pk_fhir_composition PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_composition_dossier ON fhir_composition (dossier_id) WHERE current;
CREATE INDEX ix_fhir_composition_p_author ON fhir_composition USING gin (p_author) WHERE current;
CREATE INDEX ix_fhir_composition_p_date ON fhir_composition USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_composition_p_encounter ON fhir_composition USING gin (p_encounter) WHERE current;
CREATE INDEX ix_fhir_composition_p_identifier ON fhir_composition USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_composition_p_patient ON fhir_composition USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_composition_p_status ON fhir_composition USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_composition_p_subject ON fhir_composition USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_composition_p_type ON fhir_composition USING gin (p_type) WHERE current;
CREATE INDEX ix_fhir_composition_partner ON fhir_composition (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_composition_record ON fhir_composition (record_id) WHERE current;
CREATE INDEX ix_fhir_composition_root ON fhir_composition (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_composition_updated ON fhir_composition (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_composition_current ON fhir_composition (id) WHERE current;

CREATE TABLE fhir_condition (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_code TEXT[],
    p_clinical_status TEXT[],
    p_category TEXT[],
    p_onset_date TSTZRANGE,
    p_recorded_date TSTZRANGE,
    CONSTRAINT pk_fhir_condition PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_condition_dossier ON fhir_condition (dossier_id) WHERE current;
CREATE INDEX ix_fhir_condition_p_category ON fhir_condition USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_condition_p_clinical_status ON fhir_condition USING gin (p_clinical_status) WHERE current;
CREATE INDEX ix_fhir_condition_p_code ON fhir_condition USING gin (p_code) WHERE current;
CREATE INDEX ix_fhir_condition_p_identifier ON fhir_condition USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_condition_p_onset_date ON fhir_condition USING gist (p_onset_date) WHERE current;
CREATE INDEX ix_fhir_condition_p_patient ON fhir_condition USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_condition_p_recorded_date ON fhir_condition USING gist (p_recorded_date) WHERE current;
CREATE INDEX ix_fhir_condition_p_subject ON fhir_condition USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_condition_partner ON fhir_condition (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_condition_record ON fhir_condition (record_id) WHERE current;
CREATE INDEX ix_fhir_condition_root ON fhir_condition (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_condition_updated ON fhir_condition (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_condition_current ON fhir_condition (id) WHERE current;

CREATE TABLE fhir_consent (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_status TEXT[],
    p_category TEXT[],
    p_date TSTZRANGE,
    CONSTRAINT pk_fhir_consent PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_consent_dossier ON fhir_consent (dossier_id) WHERE current;
CREATE INDEX ix_fhir_consent_p_category ON fhir_consent USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_consent_p_date ON fhir_consent USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_consent_p_identifier ON fhir_consent USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_consent_p_patient ON fhir_consent USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_consent_p_status ON fhir_consent USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_consent_partner ON fhir_consent (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_consent_record ON fhir_consent (record_id) WHERE current;
CREATE INDEX ix_fhir_consent_root ON fhir_consent (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_consent_updated ON fhir_consent (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_consent_current ON fhir_consent (id) WHERE current;

CREATE TABLE fhir_diagnosticreport (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_code TEXT[],
    p_category TEXT[],
    p_date TSTZRANGE,
    p_status TEXT[],
    CONSTRAINT pk_fhir_diagnosticreport PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_diagnosticreport_dossier ON fhir_diagnosticreport (dossier_id) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_category ON fhir_diagnosticreport USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_code ON fhir_diagnosticreport USING gin (p_code) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_date ON fhir_diagnosticreport USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_identifier ON fhir_diagnosticreport USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_patient ON fhir_diagnosticreport USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_status ON fhir_diagnosticreport USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_p_subject ON fhir_diagnosticreport USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_partner ON fhir_diagnosticreport (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_record ON fhir_diagnosticreport (record_id) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_root ON fhir_diagnosticreport (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_diagnosticreport_updated ON fhir_diagnosticreport (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_diagnosticreport_current ON fhir_diagnosticreport (id) WHERE current;

CREATE TABLE fhir_documentreference (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_type TEXT[],
    p_category TEXT[],
    p_status TEXT[],
    p_date TSTZRANGE,
    p_period TSTZRANGE,
    p_setting TEXT[],
    p_facility TEXT[],
    p_format TEXT[],
    p_security_label TEXT[],
    p_author TEXT[],
    p_custodian TEXT[],
    p_related TEXT[],
    p_relatesto TEXT[],
    p_event TEXT[],
    p_encounter TEXT[],
    CONSTRAINT pk_fhir_documentreference PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_documentreference_dossier ON fhir_documentreference (dossier_id) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_author ON fhir_documentreference USING gin (p_author) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_category ON fhir_documentreference USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_custodian ON fhir_documentreference USING gin (p_custodian) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_date ON fhir_documentreference USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_encounter ON fhir_documentreference USING gin (p_encounter) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_event ON fhir_documentreference USING gin (p_event) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_facility ON fhir_documentreference USING gin (p_facility) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_format ON fhir_documentreference USING gin (p_format) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_identifier ON fhir_documentreference USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_patient ON fhir_documentreference USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_period ON fhir_documentreference USING gist (p_period) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_related ON fhir_documentreference USING gin (p_related) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_relatesto ON fhir_documentreference USING gin (p_relatesto) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_security_label ON fhir_documentreference USING gin (p_security_label) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_setting ON fhir_documentreference USING gin (p_setting) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_status ON fhir_documentreference USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_subject ON fhir_documentreference USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_documentreference_p_type ON fhir_documentreference USING gin (p_type) WHERE current;
CREATE INDEX ix_fhir_documentreference_partner ON fhir_documentreference (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_documentreference_record ON fhir_documentreference (record_id) WHERE current;
CREATE INDEX ix_fhir_documentreference_root ON fhir_documentreference (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_documentreference_updated ON fhir_documentreference (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_documentreference_current ON fhir_documentreference (id) WHERE current;

CREATE TABLE fhir_encounter (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_appointment TEXT[],
    p_based_on TEXT[],
    p_date TSTZRANGE,
    p_status TEXT[],
    p_type TEXT[],
    p_class TEXT[],
    p_participant TEXT[],
    p_service_provider TEXT[],
    CONSTRAINT pk_fhir_encounter PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_encounter_dossier ON fhir_encounter (dossier_id) WHERE current;
CREATE INDEX ix_fhir_encounter_p_appointment ON fhir_encounter USING gin (p_appointment) WHERE current;
CREATE INDEX ix_fhir_encounter_p_based_on ON fhir_encounter USING gin (p_based_on) WHERE current;
CREATE INDEX ix_fhir_encounter_p_class ON fhir_encounter USING gin (p_class) WHERE current;
CREATE INDEX ix_fhir_encounter_p_date ON fhir_encounter USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_encounter_p_identifier ON fhir_encounter USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_encounter_p_participant ON fhir_encounter USING gin (p_participant) WHERE current;
CREATE INDEX ix_fhir_encounter_p_patient ON fhir_encounter USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_encounter_p_service_provider ON fhir_encounter USING gin (p_service_provider) WHERE current;
CREATE INDEX ix_fhir_encounter_p_status ON fhir_encounter USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_encounter_p_subject ON fhir_encounter USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_encounter_p_type ON fhir_encounter USING gin (p_type) WHERE current;
CREATE INDEX ix_fhir_encounter_partner ON fhir_encounter (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_encounter_record ON fhir_encounter (record_id) WHERE current;
CREATE INDEX ix_fhir_encounter_root ON fhir_encounter (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_encounter_updated ON fhir_encounter (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_encounter_current ON fhir_encounter (id) WHERE current;

CREATE TABLE fhir_endpoint (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_connection_type TEXT[],
    p_organization TEXT[],
    p_status TEXT[],
    CONSTRAINT pk_fhir_endpoint PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_endpoint_dossier ON fhir_endpoint (dossier_id) WHERE current;
CREATE INDEX ix_fhir_endpoint_p_connection_type ON fhir_endpoint USING gin (p_connection_type) WHERE current;
CREATE INDEX ix_fhir_endpoint_p_identifier ON fhir_endpoint USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_endpoint_p_organization ON fhir_endpoint USING gin (p_organization) WHERE current;
CREATE INDEX ix_fhir_endpoint_p_status ON fhir_endpoint USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_endpoint_partner ON fhir_endpoint (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_endpoint_record ON fhir_endpoint (record_id) WHERE current;
CREATE INDEX ix_fhir_endpoint_root ON fhir_endpoint (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_endpoint_updated ON fhir_endpoint (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_endpoint_current ON fhir_endpoint (id) WHERE current;

CREATE TABLE fhir_healthcareservice (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_name TEXT[],
    p_organization TEXT[],
    p_specialty TEXT[],
    p_service_type TEXT[],
    p_service_category TEXT[],
    p_location TEXT[],
    p_active TEXT[],
    CONSTRAINT pk_fhir_healthcareservice PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_healthcareservice_dossier ON fhir_healthcareservice (dossier_id) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_active ON fhir_healthcareservice USING gin (p_active) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_identifier ON fhir_healthcareservice USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_location ON fhir_healthcareservice USING gin (p_location) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_name ON fhir_healthcareservice USING gin (p_name) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_organization ON fhir_healthcareservice USING gin (p_organization) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_service_category ON fhir_healthcareservice USING gin (p_service_category) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_service_type ON fhir_healthcareservice USING gin (p_service_type) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_p_specialty ON fhir_healthcareservice USING gin (p_specialty) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_partner ON fhir_healthcareservice (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_record ON fhir_healthcareservice (record_id) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_root ON fhir_healthcareservice (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_healthcareservice_updated ON fhir_healthcareservice (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_healthcareservice_current ON fhir_healthcareservice (id) WHERE current;

CREATE TABLE fhir_imagingstudy (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_modality TEXT[],
    p_started TSTZRANGE,
    p_status TEXT[],
    p_endpoint TEXT[],
    p_basedon TEXT[],
    p_series TEXT[],
    CONSTRAINT pk_fhir_imagingstudy PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_imagingstudy_dossier ON fhir_imagingstudy (dossier_id) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_basedon ON fhir_imagingstudy USING gin (p_basedon) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_endpoint ON fhir_imagingstudy USING gin (p_endpoint) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_identifier ON fhir_imagingstudy USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_modality ON fhir_imagingstudy USING gin (p_modality) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_patient ON fhir_imagingstudy USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_series ON fhir_imagingstudy USING gin (p_series) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_started ON fhir_imagingstudy USING gist (p_started) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_status ON fhir_imagingstudy USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_p_subject ON fhir_imagingstudy USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_partner ON fhir_imagingstudy (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_record ON fhir_imagingstudy (record_id) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_root ON fhir_imagingstudy (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_imagingstudy_updated ON fhir_imagingstudy (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_imagingstudy_current ON fhir_imagingstudy (id) WHERE current;

CREATE TABLE fhir_location (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_name TEXT[],
    p_organization TEXT[],
    p_status TEXT[],
    CONSTRAINT pk_fhir_location PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_location_dossier ON fhir_location (dossier_id) WHERE current;
CREATE INDEX ix_fhir_location_p_identifier ON fhir_location USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_location_p_name ON fhir_location USING gin (p_name) WHERE current;
CREATE INDEX ix_fhir_location_p_organization ON fhir_location USING gin (p_organization) WHERE current;
CREATE INDEX ix_fhir_location_p_status ON fhir_location USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_location_partner ON fhir_location (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_location_record ON fhir_location (record_id) WHERE current;
CREATE INDEX ix_fhir_location_root ON fhir_location (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_location_updated ON fhir_location (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_location_current ON fhir_location (id) WHERE current;

CREATE TABLE fhir_observation (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_code TEXT[],
    p_category TEXT[],
    p_status TEXT[],
    p_date TSTZRANGE,
    p_focus TEXT[],
    CONSTRAINT pk_fhir_observation PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_observation_dossier ON fhir_observation (dossier_id) WHERE current;
CREATE INDEX ix_fhir_observation_p_category ON fhir_observation USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_observation_p_code ON fhir_observation USING gin (p_code) WHERE current;
CREATE INDEX ix_fhir_observation_p_date ON fhir_observation USING gist (p_date) WHERE current;
CREATE INDEX ix_fhir_observation_p_focus ON fhir_observation USING gin (p_focus) WHERE current;
CREATE INDEX ix_fhir_observation_p_identifier ON fhir_observation USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_observation_p_patient ON fhir_observation USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_observation_p_status ON fhir_observation USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_observation_p_subject ON fhir_observation USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_observation_partner ON fhir_observation (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_observation_record ON fhir_observation (record_id) WHERE current;
CREATE INDEX ix_fhir_observation_root ON fhir_observation (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_observation_updated ON fhir_observation (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_observation_current ON fhir_observation (id) WHERE current;

CREATE TABLE fhir_organization (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_name TEXT[],
    p_type TEXT[],
    p_partof TEXT[],
    p_active TEXT[],
    CONSTRAINT pk_fhir_organization PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_organization_dossier ON fhir_organization (dossier_id) WHERE current;
CREATE INDEX ix_fhir_organization_p_active ON fhir_organization USING gin (p_active) WHERE current;
CREATE INDEX ix_fhir_organization_p_identifier ON fhir_organization USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_organization_p_name ON fhir_organization USING gin (p_name) WHERE current;
CREATE INDEX ix_fhir_organization_p_partof ON fhir_organization USING gin (p_partof) WHERE current;
CREATE INDEX ix_fhir_organization_p_type ON fhir_organization USING gin (p_type) WHERE current;
CREATE INDEX ix_fhir_organization_partner ON fhir_organization (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_organization_record ON fhir_organization (record_id) WHERE current;
CREATE INDEX ix_fhir_organization_root ON fhir_organization (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_organization_updated ON fhir_organization (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_organization_current ON fhir_organization (id) WHERE current;

CREATE TABLE fhir_patient (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_family TEXT[],
    p_given TEXT[],
    p_name TEXT[],
    p_birthdate TSTZRANGE,
    p_gender TEXT[],
    p_active TEXT[],
    p_link TEXT[],
    p_organization TEXT[],
    p_general_practitioner TEXT[],
    p_deceased TEXT[],
    CONSTRAINT pk_fhir_patient PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_patient_dossier ON fhir_patient (dossier_id) WHERE current;
CREATE INDEX ix_fhir_patient_p_active ON fhir_patient USING gin (p_active) WHERE current;
CREATE INDEX ix_fhir_patient_p_birthdate ON fhir_patient USING gist (p_birthdate) WHERE current;
CREATE INDEX ix_fhir_patient_p_deceased ON fhir_patient USING gin (p_deceased) WHERE current;
CREATE INDEX ix_fhir_patient_p_family ON fhir_patient USING gin (p_family) WHERE current;
CREATE INDEX ix_fhir_patient_p_gender ON fhir_patient USING gin (p_gender) WHERE current;
CREATE INDEX ix_fhir_patient_p_general_practitioner ON fhir_patient USING gin (p_general_practitioner) WHERE current;
CREATE INDEX ix_fhir_patient_p_given ON fhir_patient USING gin (p_given) WHERE current;
CREATE INDEX ix_fhir_patient_p_identifier ON fhir_patient USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_patient_p_link ON fhir_patient USING gin (p_link) WHERE current;
CREATE INDEX ix_fhir_patient_p_name ON fhir_patient USING gin (p_name) WHERE current;
CREATE INDEX ix_fhir_patient_p_organization ON fhir_patient USING gin (p_organization) WHERE current;
CREATE INDEX ix_fhir_patient_partner ON fhir_patient (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_patient_record ON fhir_patient (record_id) WHERE current;
CREATE INDEX ix_fhir_patient_root ON fhir_patient (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_patient_updated ON fhir_patient (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_patient_current ON fhir_patient (id) WHERE current;

CREATE TABLE fhir_practitioner (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_family TEXT[],
    p_given TEXT[],
    p_name TEXT[],
    p_telecom TEXT[],
    p_active TEXT[],
    CONSTRAINT pk_fhir_practitioner PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_practitioner_dossier ON fhir_practitioner (dossier_id) WHERE current;
CREATE INDEX ix_fhir_practitioner_p_active ON fhir_practitioner USING gin (p_active) WHERE current;
CREATE INDEX ix_fhir_practitioner_p_family ON fhir_practitioner USING gin (p_family) WHERE current;
CREATE INDEX ix_fhir_practitioner_p_given ON fhir_practitioner USING gin (p_given) WHERE current;
CREATE INDEX ix_fhir_practitioner_p_identifier ON fhir_practitioner USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_practitioner_p_name ON fhir_practitioner USING gin (p_name) WHERE current;
CREATE INDEX ix_fhir_practitioner_p_telecom ON fhir_practitioner USING gin (p_telecom) WHERE current;
CREATE INDEX ix_fhir_practitioner_partner ON fhir_practitioner (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_practitioner_record ON fhir_practitioner (record_id) WHERE current;
CREATE INDEX ix_fhir_practitioner_root ON fhir_practitioner (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_practitioner_updated ON fhir_practitioner (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_practitioner_current ON fhir_practitioner (id) WHERE current;

CREATE TABLE fhir_practitionerrole (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_practitioner TEXT[],
    p_organization TEXT[],
    p_specialty TEXT[],
    p_role TEXT[],
    p_active TEXT[],
    CONSTRAINT pk_fhir_practitionerrole PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_practitionerrole_dossier ON fhir_practitionerrole (dossier_id) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_p_active ON fhir_practitionerrole USING gin (p_active) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_p_identifier ON fhir_practitionerrole USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_p_organization ON fhir_practitionerrole USING gin (p_organization) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_p_practitioner ON fhir_practitionerrole USING gin (p_practitioner) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_p_role ON fhir_practitionerrole USING gin (p_role) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_p_specialty ON fhir_practitionerrole USING gin (p_specialty) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_partner ON fhir_practitionerrole (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_record ON fhir_practitionerrole (record_id) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_root ON fhir_practitionerrole (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_practitionerrole_updated ON fhir_practitionerrole (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_practitionerrole_current ON fhir_practitionerrole (id) WHERE current;

CREATE TABLE fhir_provenance (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_target TEXT[],
    p_recorded TSTZRANGE,
    p_agent TEXT[],
    p_entity TEXT[],
    p_patient TEXT[],
    CONSTRAINT pk_fhir_provenance PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_provenance_dossier ON fhir_provenance (dossier_id) WHERE current;
CREATE INDEX ix_fhir_provenance_p_agent ON fhir_provenance USING gin (p_agent) WHERE current;
CREATE INDEX ix_fhir_provenance_p_entity ON fhir_provenance USING gin (p_entity) WHERE current;
CREATE INDEX ix_fhir_provenance_p_patient ON fhir_provenance USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_provenance_p_recorded ON fhir_provenance USING gist (p_recorded) WHERE current;
CREATE INDEX ix_fhir_provenance_p_target ON fhir_provenance USING gin (p_target) WHERE current;
CREATE INDEX ix_fhir_provenance_partner ON fhir_provenance (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_provenance_record ON fhir_provenance (record_id) WHERE current;
CREATE INDEX ix_fhir_provenance_root ON fhir_provenance (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_provenance_updated ON fhir_provenance (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_provenance_current ON fhir_provenance (id) WHERE current;

CREATE TABLE fhir_questionnaireresponse (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_based_on TEXT[],
    p_questionnaire TEXT[],
    p_status TEXT[],
    p_authored TSTZRANGE,
    p_author TEXT[],
    CONSTRAINT pk_fhir_questionnaireresponse PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_questionnaireresponse_dossier ON fhir_questionnaireresponse (dossier_id) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_author ON fhir_questionnaireresponse USING gin (p_author) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_authored ON fhir_questionnaireresponse USING gist (p_authored) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_based_on ON fhir_questionnaireresponse USING gin (p_based_on) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_identifier ON fhir_questionnaireresponse USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_patient ON fhir_questionnaireresponse USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_questionnaire ON fhir_questionnaireresponse USING gin (p_questionnaire) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_status ON fhir_questionnaireresponse USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_p_subject ON fhir_questionnaireresponse USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_partner ON fhir_questionnaireresponse (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_record ON fhir_questionnaireresponse (record_id) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_root ON fhir_questionnaireresponse (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_questionnaireresponse_updated ON fhir_questionnaireresponse (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_questionnaireresponse_current ON fhir_questionnaireresponse (id) WHERE current;

CREATE TABLE fhir_servicerequest (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_status TEXT[],
    p_intent TEXT[],
    p_category TEXT[],
    p_code TEXT[],
    p_authored TSTZRANGE,
    p_occurrence TSTZRANGE,
    p_performer TEXT[],
    p_requester TEXT[],
    p_requisition TEXT[],
    CONSTRAINT pk_fhir_servicerequest PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_servicerequest_dossier ON fhir_servicerequest (dossier_id) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_authored ON fhir_servicerequest USING gist (p_authored) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_category ON fhir_servicerequest USING gin (p_category) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_code ON fhir_servicerequest USING gin (p_code) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_identifier ON fhir_servicerequest USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_intent ON fhir_servicerequest USING gin (p_intent) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_occurrence ON fhir_servicerequest USING gist (p_occurrence) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_patient ON fhir_servicerequest USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_performer ON fhir_servicerequest USING gin (p_performer) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_requester ON fhir_servicerequest USING gin (p_requester) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_requisition ON fhir_servicerequest USING gin (p_requisition) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_status ON fhir_servicerequest USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_servicerequest_p_subject ON fhir_servicerequest USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_servicerequest_partner ON fhir_servicerequest (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_servicerequest_record ON fhir_servicerequest (record_id) WHERE current;
CREATE INDEX ix_fhir_servicerequest_root ON fhir_servicerequest (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_servicerequest_updated ON fhir_servicerequest (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_servicerequest_current ON fhir_servicerequest (id) WHERE current;

CREATE TABLE fhir_task (
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BYTEA NOT NULL,
    current BOOLEAN NOT NULL,
    deleted BOOLEAN NOT NULL,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    network_id UUID,
    public BOOLEAN NOT NULL,
    root_kind TEXT,
    root_id UUID,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id(),
    p_identifier TEXT[],
    p_based_on TEXT[],
    p_focus TEXT[],
    p_patient TEXT[],
    p_subject TEXT[],
    p_owner TEXT[],
    p_requester TEXT[],
    p_status TEXT[],
    p_business_status TEXT[],
    p_code TEXT[],
    p_modified TSTZRANGE,
    p_authored_on TSTZRANGE,
    p_group_identifier TEXT[],
    p_encounter TEXT[],
    CONSTRAINT pk_fhir_task PRIMARY KEY (id, version)
);
CREATE INDEX ix_fhir_task_dossier ON fhir_task (dossier_id) WHERE current;
CREATE INDEX ix_fhir_task_p_authored_on ON fhir_task USING gist (p_authored_on) WHERE current;
CREATE INDEX ix_fhir_task_p_based_on ON fhir_task USING gin (p_based_on) WHERE current;
CREATE INDEX ix_fhir_task_p_business_status ON fhir_task USING gin (p_business_status) WHERE current;
CREATE INDEX ix_fhir_task_p_code ON fhir_task USING gin (p_code) WHERE current;
CREATE INDEX ix_fhir_task_p_encounter ON fhir_task USING gin (p_encounter) WHERE current;
CREATE INDEX ix_fhir_task_p_focus ON fhir_task USING gin (p_focus) WHERE current;
CREATE INDEX ix_fhir_task_p_group_identifier ON fhir_task USING gin (p_group_identifier) WHERE current;
CREATE INDEX ix_fhir_task_p_identifier ON fhir_task USING gin (p_identifier) WHERE current;
CREATE INDEX ix_fhir_task_p_modified ON fhir_task USING gist (p_modified) WHERE current;
CREATE INDEX ix_fhir_task_p_owner ON fhir_task USING gin (p_owner) WHERE current;
CREATE INDEX ix_fhir_task_p_patient ON fhir_task USING gin (p_patient) WHERE current;
CREATE INDEX ix_fhir_task_p_requester ON fhir_task USING gin (p_requester) WHERE current;
CREATE INDEX ix_fhir_task_p_status ON fhir_task USING gin (p_status) WHERE current;
CREATE INDEX ix_fhir_task_p_subject ON fhir_task USING gin (p_subject) WHERE current;
CREATE INDEX ix_fhir_task_partner ON fhir_task (partner_id, updated_at, id) WHERE current;
CREATE INDEX ix_fhir_task_record ON fhir_task (record_id) WHERE current;
CREATE INDEX ix_fhir_task_root ON fhir_task (root_id, root_kind) WHERE current;
CREATE INDEX ix_fhir_task_updated ON fhir_task (updated_at, id) WHERE current;
CREATE UNIQUE INDEX uq_fhir_task_current ON fhir_task (id) WHERE current;

CREATE TABLE network (
    code TEXT NOT NULL,
    name TEXT NOT NULL,
    base_url TEXT NOT NULL,
    contact TEXT NOT NULL,
    zone TEXT NOT NULL,
    holidays TEXT NOT NULL,
    rrc_identifier TEXT,
    territories JSONB NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_network PRIMARY KEY (id),
    CONSTRAINT uq_network_code UNIQUE (code)
);

CREATE TABLE organisation (
    finess TEXT,
    idnst TEXT,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    city TEXT,
    postal_code TEXT,
    address_line TEXT,
    phone TEXT,
    source TEXT NOT NULL,
    as_of DATE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_organisation PRIMARY KEY (id),
    CONSTRAINT uq_organisation_finess UNIQUE (finess),
    CONSTRAINT uq_organisation_idnst UNIQUE (idnst)
);

CREATE TABLE person (
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_person PRIMARY KEY (id)
);

CREATE TABLE practitioner (
    rpps TEXT,
    idnps TEXT NOT NULL,
    family TEXT NOT NULL,
    given TEXT NOT NULL,
    title TEXT,
    profession TEXT,
    speciality TEXT,
    informed BOOLEAN NOT NULL,
    source TEXT NOT NULL,
    as_of DATE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_practitioner PRIMARY KEY (id),
    CONSTRAINT uq_practitioner_rpps UNIQUE (rpps),
    CONSTRAINT uq_practitioner_idnps UNIQUE (idnps)
);

CREATE TABLE sign_in (
    state_hash TEXT NOT NULL,
    browser_hash TEXT NOT NULL,
    nonce TEXT NOT NULL,
    code_verifier TEXT NOT NULL,
    next_path TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_sign_in PRIMARY KEY (id),
    CONSTRAINT uq_sign_in_state_hash UNIQUE (state_hash)
);
CREATE INDEX ix_sign_in_expires_at ON sign_in (expires_at);

CREATE TABLE token_replay (
    client_id TEXT NOT NULL,
    jti TEXT NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_token_replay PRIMARY KEY (client_id, jti)
);
CREATE INDEX ix_token_replay_expires_at ON token_replay (expires_at);

CREATE TABLE mailbox (
    address TEXT NOT NULL,
    kind TEXT NOT NULL,
    practitioner_id UUID,
    organisation_id UUID,
    preferred BOOLEAN NOT NULL,
    confidential BOOLEAN NOT NULL,
    source TEXT NOT NULL,
    as_of DATE NOT NULL,
    unusable_since TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_mailbox PRIMARY KEY (id),
    CONSTRAINT ck_mailbox_owned CHECK (num_nonnulls(practitioner_id, organisation_id) >= 1),
    CONSTRAINT fk_mailbox_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id),
    CONSTRAINT fk_mailbox_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisation (id)
);
CREATE INDEX ix_mailbox_address ON mailbox (lower(address));
CREATE INDEX ix_mailbox_organisation_id ON mailbox (organisation_id);
CREATE UNIQUE INDEX uq_mailbox_practitioner ON mailbox (practitioner_id, address);

CREATE TABLE partner (
    name TEXT NOT NULL,
    network_id UUID,
    finess TEXT,
    patient_domains TEXT[] NOT NULL,
    fhir_scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_partner PRIMARY KEY (id),
    CONSTRAINT uq_partner_name UNIQUE (name),
    CONSTRAINT fk_partner_network_id FOREIGN KEY(network_id) REFERENCES network (id)
);

CREATE TABLE practice_role (
    practitioner_id UUID NOT NULL,
    organisation_id UUID,
    speciality TEXT,
    profession TEXT,
    source TEXT NOT NULL,
    as_of DATE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_practice_role PRIMARY KEY (id),
    CONSTRAINT uq_practice_role_practitioner_id_organisation_id_speciality UNIQUE (practitioner_id, organisation_id, speciality),
    CONSTRAINT fk_practice_role_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id),
    CONSTRAINT fk_practice_role_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisation (id)
);
CREATE INDEX ix_practice_role_organisation_id ON practice_role (organisation_id);

CREATE TABLE rcp (
    network_id UUID NOT NULL,
    organisation_id UUID,
    national_number TEXT NOT NULL,
    manager_identifier TEXT,
    manager_name TEXT,
    title TEXT NOT NULL,
    kind TEXT NOT NULL,
    level TEXT NOT NULL,
    nature TEXT NOT NULL,
    organ TEXT,
    place TEXT NOT NULL,
    zone TEXT NOT NULL,
    holidays TEXT NOT NULL,
    contact TEXT NOT NULL,
    signature TEXT NOT NULL,
    quorum JSONB NOT NULL,
    notification JSONB NOT NULL,
    webconference JSONB NOT NULL,
    form TEXT,
    fictive BOOLEAN NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_rcp PRIMARY KEY (id),
    CONSTRAINT ck_rcp_kind CHECK (kind IN ('rcp', 'staff')),
    CONSTRAINT ck_rcp_level CHECK (level IN ('locale', 'regionale', 'nationale', 'europeenne')),
    CONSTRAINT fk_rcp_network_id FOREIGN KEY(network_id) REFERENCES network (id),
    CONSTRAINT fk_rcp_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisation (id),
    CONSTRAINT uq_rcp_national_number UNIQUE (national_number)
);
CREATE INDEX ix_rcp_network_id ON rcp (network_id);

CREATE TABLE web_session (
    token_hash TEXT NOT NULL,
    practitioner_id UUID NOT NULL,
    acr TEXT NOT NULL,
    situation JSONB NOT NULL,
    psc_sid TEXT,
    id_token TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    ended_by TEXT,
    id UUID NOT NULL,
    CONSTRAINT pk_web_session PRIMARY KEY (id),
    CONSTRAINT uq_web_session_token_hash UNIQUE (token_hash),
    CONSTRAINT fk_web_session_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id)
);
CREATE INDEX ix_web_session_expires_at ON web_session (expires_at);
CREATE INDEX ix_web_session_practitioner_id ON web_session (practitioner_id);
CREATE INDEX ix_web_session_psc_sid ON web_session (psc_sid);

CREATE TABLE partner_credential (
    partner_id UUID NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    details JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_partner_credential PRIMARY KEY (id),
    CONSTRAINT fk_partner_credential_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id)
);
CREATE INDEX ix_partner_credential_partner_id ON partner_credential (partner_id);
CREATE UNIQUE INDEX uq_partner_credential_live ON partner_credential (kind, value) WHERE revoked_at IS NULL;

CREATE TABLE patient_record (
    partner_id UUID NOT NULL,
    system TEXT NOT NULL,
    value TEXT NOT NULL,
    birth_family TEXT,
    used_family TEXT,
    given TEXT,
    given_names TEXT[] NOT NULL,
    used_given TEXT,
    sex TEXT NOT NULL,
    birth_date TEXT,
    birth_place TEXT,
    ins_system TEXT,
    ins_value TEXT,
    ins_qualified BOOLEAN NOT NULL,
    ins_faults TEXT[] NOT NULL,
    identity_status TEXT,
    treating_idnps TEXT,
    treating_display TEXT,
    match_key TEXT,
    active BOOLEAN NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_patient_record PRIMARY KEY (id),
    CONSTRAINT uq_patient_record_partner_id_system_value UNIQUE (partner_id, system, value),
    CONSTRAINT fk_patient_record_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id)
);
CREATE INDEX ix_patient_record_ins ON patient_record (ins_value, ins_system) WHERE ins_value IS NOT NULL;
CREATE INDEX ix_patient_record_match_key ON patient_record (match_key);

CREATE TABLE quarantined_object (
    partner_id UUID NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    reason TEXT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_quarantined_object PRIMARY KEY (id),
    CONSTRAINT uq_quarantined_object_partner_id_sop_instance_uid_sha256 UNIQUE (partner_id, sop_instance_uid, sha256),
    CONSTRAINT fk_quarantined_object_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id)
);

CREATE TABLE rcp_member (
    rcp_id UUID NOT NULL,
    practitioner_id UUID NOT NULL,
    role TEXT NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_rcp_member PRIMARY KEY (id),
    CONSTRAINT uq_rcp_member_rcp_id_practitioner_id_role UNIQUE (rcp_id, practitioner_id, role),
    CONSTRAINT ck_rcp_member_role CHECK (role IN ('membre', 'coordonnateur', 'administrateur', 'secretaire')),
    CONSTRAINT fk_rcp_member_rcp_id FOREIGN KEY(rcp_id) REFERENCES rcp (id),
    CONSTRAINT fk_rcp_member_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id)
);
CREATE INDEX ix_rcp_member_practitioner ON rcp_member (practitioner_id, rcp_id);

CREATE TABLE rcp_session (
    rcp_id UUID NOT NULL,
    identifier TEXT NOT NULL,
    "on" DATE NOT NULL,
    start TIME WITHOUT TIME ZONE NOT NULL,
    "end" TIME WITHOUT TIME ZONE NOT NULL,
    zone TEXT NOT NULL,
    starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
    place TEXT,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE,
    closed_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_rcp_session PRIMARY KEY (id),
    CONSTRAINT uq_rcp_session_rcp_id_on_start UNIQUE (rcp_id, "on", start),
    CONSTRAINT ck_rcp_session_state CHECK (state IN ('prevue', 'ouverte', 'close', 'reportee', 'annulee')),
    CONSTRAINT ck_rcp_session_lasts CHECK (ends_at > starts_at),
    CONSTRAINT fk_rcp_session_rcp_id FOREIGN KEY(rcp_id) REFERENCES rcp (id),
    CONSTRAINT uq_rcp_session_identifier UNIQUE (identifier)
);
CREATE INDEX ix_rcp_session_starts_at ON rcp_session (starts_at);

CREATE TABLE attendance (
    session_id UUID NOT NULL,
    practitioner_id UUID NOT NULL,
    mode TEXT NOT NULL,
    speciality TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_attendance PRIMARY KEY (id),
    CONSTRAINT uq_attendance_session_id_practitioner_id UNIQUE (session_id, practitioner_id),
    CONSTRAINT fk_attendance_session_id FOREIGN KEY(session_id) REFERENCES rcp_session (id),
    CONSTRAINT fk_attendance_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id)
);

CREATE TABLE dossier (
    number TEXT NOT NULL,
    reference TEXT NOT NULL,
    placer_system TEXT,
    placer_value TEXT,
    session_id UUID NOT NULL,
    record_id UUID NOT NULL,
    partner_id UUID,
    organisation_id UUID,
    requester_id UUID,
    participation TEXT NOT NULL,
    state TEXT NOT NULL,
    rank INTEGER,
    urgent BOOLEAN NOT NULL,
    label TEXT,
    question TEXT,
    reason_code TEXT,
    reason_text TEXT,
    tumour_key TEXT NOT NULL,
    clinical JSONB NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE,
    registered_at TIMESTAMP WITH TIME ZONE NOT NULL,
    prefiche_at TIMESTAMP WITH TIME ZONE,
    opposed_at TIMESTAMP WITH TIME ZONE,
    version INTEGER NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_dossier PRIMARY KEY (id),
    CONSTRAINT ck_dossier_participation CHECK (participation IN ('present', 'absent', 'webconference')),
    CONSTRAINT uq_dossier_number UNIQUE (number),
    CONSTRAINT uq_dossier_reference UNIQUE (reference),
    CONSTRAINT fk_dossier_session_id FOREIGN KEY(session_id) REFERENCES rcp_session (id),
    CONSTRAINT fk_dossier_record_id FOREIGN KEY(record_id) REFERENCES patient_record (id),
    CONSTRAINT fk_dossier_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id),
    CONSTRAINT fk_dossier_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisation (id),
    CONSTRAINT fk_dossier_requester_id FOREIGN KEY(requester_id) REFERENCES practitioner (id)
);
CREATE INDEX ix_dossier_partner_id ON dossier (partner_id);
CREATE INDEX ix_dossier_placer ON dossier (placer_system, placer_value);
CREATE INDEX ix_dossier_requester_id ON dossier (requester_id);
CREATE INDEX ix_dossier_session ON dossier (session_id, rank);
CREATE INDEX ix_dossier_state ON dossier (state);
CREATE UNIQUE INDEX uq_dossier_patient_session_tumour ON dossier (record_id, session_id, tumour_key) WHERE state NOT IN ('annule', 'refuse');

CREATE TABLE person_link (
    record_id UUID NOT NULL,
    person_id UUID NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    linked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_person_link PRIMARY KEY (id),
    CONSTRAINT fk_person_link_record_id FOREIGN KEY(record_id) REFERENCES patient_record (id),
    CONSTRAINT fk_person_link_person_id FOREIGN KEY(person_id) REFERENCES person (id)
);
CREATE INDEX ix_person_link_person ON person_link (person_id) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX uq_person_link_live ON person_link (record_id) WHERE ended_at IS NULL;

CREATE TABLE study (
    partner_id UUID NOT NULL,
    study_instance_uid TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    record_id UUID,
    patient_id TEXT,
    patient_id_system TEXT,
    traits JSONB NOT NULL,
    accession_number TEXT,
    accession_system TEXT,
    study_description TEXT,
    referring_physician TEXT,
    started_at TIMESTAMP WITH TIME ZONE,
    started_on DATE,
    modalities TEXT[] NOT NULL,
    instances_count INTEGER NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_instance_at TIMESTAMP WITH TIME ZONE NOT NULL,
    represented_at TIMESTAMP WITH TIME ZONE,
    settled_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_study PRIMARY KEY (id),
    CONSTRAINT uq_study_partner_id_study_instance_uid UNIQUE (partner_id, study_instance_uid),
    CONSTRAINT ck_study_state CHECK (state IN ('attendu', 'rattache', 'quarantaine', 'propose')),
    CONSTRAINT fk_study_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id),
    CONSTRAINT fk_study_record_id FOREIGN KEY(record_id) REFERENCES patient_record (id)
);
CREATE INDEX ix_study_accession_number ON study (accession_number);
CREATE INDEX ix_study_patient ON study (patient_id, patient_id_system);
CREATE INDEX ix_study_record_id ON study (record_id);
CREATE INDEX ix_study_study_instance_uid ON study (study_instance_uid);
CREATE INDEX ix_study_unsettled ON study (last_instance_at) WHERE settled_at IS NULL;

CREATE TABLE contribution (
    dossier_id UUID NOT NULL,
    key TEXT NOT NULL,
    author_id UUID NOT NULL,
    author_name TEXT NOT NULL,
    author_speciality TEXT,
    text TEXT NOT NULL,
    channel TEXT NOT NULL,
    after_session BOOLEAN NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_contribution PRIMARY KEY (id),
    CONSTRAINT fk_contribution_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT uq_contribution_key UNIQUE (key),
    CONSTRAINT fk_contribution_author_id FOREIGN KEY(author_id) REFERENCES practitioner (id)
);
CREATE INDEX ix_contribution_dossier_id ON contribution (dossier_id);

CREATE TABLE correspondent (
    dossier_id UUID NOT NULL,
    practitioner_id UUID,
    role TEXT NOT NULL,
    display TEXT,
    use_personal BOOLEAN NOT NULL,
    use_secretariat BOOLEAN NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    declined_at TIMESTAMP WITH TIME ZONE,
    wishes_to_attend BOOLEAN NOT NULL,
    connected_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_correspondent PRIMARY KEY (id),
    CONSTRAINT ck_correspondent_role CHECK (role IN ('medecin-traitant', 'demandeur', 'correspondant')),
    CONSTRAINT fk_correspondent_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_correspondent_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id)
);
CREATE INDEX ix_correspondent_practitioner ON correspondent (practitioner_id, role);
CREATE UNIQUE INDEX uq_correspondent_practitioner ON correspondent (dossier_id, role, practitioner_id);

CREATE TABLE dossier_move (
    dossier_id UUID NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    session_id UUID NOT NULL,
    reason TEXT,
    actor TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_dossier_move PRIMARY KEY (id),
    CONSTRAINT fk_dossier_move_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_dossier_move_session_id FOREIGN KEY(session_id) REFERENCES rcp_session (id)
);
CREATE INDEX ix_dossier_move_dossier_id ON dossier_move (dossier_id);

CREATE TABLE report (
    dossier_id UUID NOT NULL,
    set_id UUID NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    draft JSONB NOT NULL,
    content BYTEA,
    replaces_id UUID,
    author_id UUID NOT NULL,
    validator_id UUID,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    validated_at TIMESTAMP WITH TIME ZONE,
    id UUID NOT NULL,
    CONSTRAINT pk_report PRIMARY KEY (id),
    CONSTRAINT uq_report_dossier_id_version UNIQUE (dossier_id, version),
    CONSTRAINT ck_report_state CHECK (state IN ('brouillon', 'valide', 'remplace', 'annule')),
    CONSTRAINT ck_report_frozen CHECK ((state = 'brouillon') = (content IS NULL)),
    CONSTRAINT fk_report_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_report_replaces_id FOREIGN KEY(replaces_id) REFERENCES report (id),
    CONSTRAINT fk_report_author_id FOREIGN KEY(author_id) REFERENCES practitioner (id),
    CONSTRAINT fk_report_validator_id FOREIGN KEY(validator_id) REFERENCES practitioner (id)
);

CREATE TABLE series (
    study_id UUID NOT NULL,
    series_instance_uid TEXT NOT NULL,
    modality TEXT,
    series_number INTEGER,
    series_description TEXT,
    body_part_examined TEXT,
    started_at TIMESTAMP WITH TIME ZONE,
    instances_count INTEGER NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_series PRIMARY KEY (id),
    CONSTRAINT uq_series_study_id_series_instance_uid UNIQUE (study_id, series_instance_uid),
    CONSTRAINT fk_series_study_id FOREIGN KEY(study_id) REFERENCES study (id)
);
CREATE INDEX ix_series_series_instance_uid ON series (series_instance_uid);

CREATE TABLE study_dossier (
    study_id UUID NOT NULL,
    dossier_id UUID NOT NULL,
    basis TEXT NOT NULL,
    author TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_study_dossier PRIMARY KEY (study_id, dossier_id),
    CONSTRAINT fk_study_dossier_study_id FOREIGN KEY(study_id) REFERENCES study (id),
    CONSTRAINT fk_study_dossier_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id)
);
CREATE INDEX ix_study_dossier_dossier_id ON study_dossier (dossier_id);

CREATE TABLE instance (
    partner_id UUID NOT NULL,
    series_id UUID NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    instance_number INTEGER,
    number_of_frames INTEGER,
    rows INTEGER,
    columns INTEGER,
    sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    dicom_json BYTEA NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_instance PRIMARY KEY (id),
    CONSTRAINT uq_instance_partner_id_sop_instance_uid UNIQUE (partner_id, sop_instance_uid),
    CONSTRAINT fk_instance_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id),
    CONSTRAINT fk_instance_series_id FOREIGN KEY(series_id) REFERENCES series (id)
);
CREATE INDEX ix_instance_series_id ON instance (series_id);
CREATE INDEX ix_instance_sop_instance_uid ON instance (sop_instance_uid);

CREATE TABLE message (
    direction TEXT NOT NULL,
    channel TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    message_id TEXT,
    sender TEXT,
    recipient TEXT,
    recipient_id UUID,
    dossier_id UUID,
    session_id UUID,
    report_id UUID,
    partner_id UUID,
    content BYTEA,
    sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    state TEXT NOT NULL,
    told TEXT,
    reason TEXT,
    attempts INTEGER NOT NULL,
    not_before TIMESTAMP WITH TIME ZONE NOT NULL,
    uncertain_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    domain_at TIMESTAMP WITH TIME ZONE NOT NULL,
    done_at TIMESTAMP WITH TIME ZONE,
    details JSONB NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_message PRIMARY KEY (id),
    CONSTRAINT ck_message_direction CHECK (direction IN ('in', 'out')),
    CONSTRAINT ck_message_kept CHECK (content IS NOT NULL OR size_bytes > 65536),
    CONSTRAINT fk_message_recipient_id FOREIGN KEY(recipient_id) REFERENCES practitioner (id),
    CONSTRAINT fk_message_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_message_session_id FOREIGN KEY(session_id) REFERENCES rcp_session (id),
    CONSTRAINT fk_message_report_id FOREIGN KEY(report_id) REFERENCES report (id),
    CONSTRAINT fk_message_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id)
);
CREATE INDEX ix_message_dossier_id ON message (dossier_id);
CREATE INDEX ix_message_due ON message (not_before) WHERE direction = 'out' AND state = 'en-attente';
CREATE INDEX ix_message_message_id ON message (message_id);
CREATE INDEX ix_message_recipient_id ON message (recipient_id);
CREATE INDEX ix_message_report_id ON message (report_id);
CREATE INDEX ix_message_session_id ON message (session_id);
CREATE UNIQUE INDEX uq_message_key ON message (direction, channel, key);

CREATE TABLE report_form (
    report_id UUID NOT NULL,
    form TEXT NOT NULL,
    content_type TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_report_form PRIMARY KEY (id),
    CONSTRAINT uq_report_form_report_id_form UNIQUE (report_id, form),
    CONSTRAINT fk_report_form_report_id FOREIGN KEY(report_id) REFERENCES report (id)
);

CREATE TABLE attempt (
    message_id UUID NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT,
    code TEXT,
    reason TEXT,
    id UUID NOT NULL,
    CONSTRAINT pk_attempt PRIMARY KEY (id),
    CONSTRAINT fk_attempt_message_id FOREIGN KEY(message_id) REFERENCES message (id)
);
CREATE INDEX ix_attempt_message_id ON attempt (message_id);

CREATE TABLE notification_entry (
    dossier_id UUID NOT NULL,
    session_id UUID NOT NULL,
    subject TEXT NOT NULL,
    practitioner_id UUID,
    kind TEXT NOT NULL,
    code TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    decided_at TIMESTAMP WITH TIME ZONE NOT NULL,
    late BOOLEAN NOT NULL,
    ready_at TIMESTAMP WITH TIME ZONE,
    message_id UUID,
    id UUID NOT NULL,
    CONSTRAINT pk_notification_entry PRIMARY KEY (id),
    CONSTRAINT fk_notification_entry_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_notification_entry_session_id FOREIGN KEY(session_id) REFERENCES rcp_session (id),
    CONSTRAINT fk_notification_entry_practitioner_id FOREIGN KEY(practitioner_id) REFERENCES practitioner (id),
    CONSTRAINT fk_notification_entry_message_id FOREIGN KEY(message_id) REFERENCES message (id)
);
CREATE INDEX ix_notification_entry_practitioner_id ON notification_entry (practitioner_id);
CREATE INDEX ix_notification_entry_session_id ON notification_entry (session_id);
CREATE UNIQUE INDEX uq_notification_entry_key ON notification_entry (dossier_id, session_id, subject, kind);

CREATE TABLE receipt (
    message_id UUID NOT NULL,
    source_id UUID,
    kind TEXT NOT NULL,
    code TEXT,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    CONSTRAINT pk_receipt PRIMARY KEY (id),
    CONSTRAINT fk_receipt_message_id FOREIGN KEY(message_id) REFERENCES message (id),
    CONSTRAINT fk_receipt_source_id FOREIGN KEY(source_id) REFERENCES message (id)
);
CREATE INDEX ix_receipt_message_id ON receipt (message_id);
CREATE UNIQUE INDEX uq_receipt_source ON receipt (source_id, message_id);

CREATE TABLE work_item (
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    network_id UUID,
    partner_id UUID,
    record_id UUID,
    dossier_id UUID,
    study_id UUID,
    message_id UUID,
    details JSONB NOT NULL,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    closed_by TEXT,
    decision TEXT,
    id UUID NOT NULL,
    CONSTRAINT pk_work_item PRIMARY KEY (id),
    CONSTRAINT fk_work_item_network_id FOREIGN KEY(network_id) REFERENCES network (id),
    CONSTRAINT fk_work_item_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id),
    CONSTRAINT fk_work_item_record_id FOREIGN KEY(record_id) REFERENCES patient_record (id),
    CONSTRAINT fk_work_item_dossier_id FOREIGN KEY(dossier_id) REFERENCES dossier (id),
    CONSTRAINT fk_work_item_study_id FOREIGN KEY(study_id) REFERENCES study (id),
    CONSTRAINT fk_work_item_message_id FOREIGN KEY(message_id) REFERENCES message (id)
);
CREATE INDEX ix_work_item_kind ON work_item (kind);
CREATE INDEX ix_work_item_network_id ON work_item (network_id);
CREATE UNIQUE INDEX uq_work_item_open ON work_item (key) WHERE closed_at IS NULL;
