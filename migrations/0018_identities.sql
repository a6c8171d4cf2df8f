-- People whom an OpenID Connect provider signs in. Issuer and subject together never mean somebody else (OpenID Connect
-- Core, section 5.7); a name or an e-mail address might.

create table identities (
    issuer     text        not null,
    subject    text        not null,
    user_id    uuid        not null references users (id) on delete cascade,
    created_at timestamptz not null,
    primary key (issuer, subject)
);
create unique index identities_user on identities (user_id, issuer);

-- The issuer that vouched for who began the session; null for a password. Its people's second factor is its own affair.
alter table sessions add column provider text;
