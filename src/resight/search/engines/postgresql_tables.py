"""The tables of a gallery in PostgreSQL, and how older ones become these.

    SELECT i.path, o.name FROM images i LEFT JOIN objects o ON o.id = i.object;
    SELECT o.name, s.camera, s.count FROM sums_1 s JOIN objects o ON o.id = s.object;
    SELECT image FROM vectors_1 ORDER BY vector <=> (SELECT vector FROM vectors_1 WHERE image = 7)
      LIMIT 10;

`meta` says which generation is in use: the number of the tables vectors_, sums_ and centroids_.
"""

from __future__ import annotations

# Step n takes a schema of format n to n + 1; an empty schema is of format 0. Steps are never
# changed once they were released: a new format is a new step.
STEPS = (
    """
CREATE TABLE meta(key text PRIMARY KEY, value json NOT NULL);
CREATE TABLE roots(id bigint PRIMARY KEY, name text NOT NULL UNIQUE, path text NOT NULL);
CREATE TABLE objects(id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE);
CREATE TABLE images(
  id bigint PRIMARY KEY, root bigint, path text, box text NOT NULL DEFAULT '',
  object bigint, given text, camera text, split text, columns json NOT NULL DEFAULT '{}',
  content text, bytes bigint, mtime bigint, width bigint, height bigint, changed bigint NOT NULL);
CREATE UNIQUE INDEX images_place ON images(root, path, box) WHERE path IS NOT NULL;
CREATE INDEX images_content ON images(content) WHERE content IS NOT NULL;
CREATE INDEX images_bytes ON images(bytes) WHERE bytes IS NOT NULL;
CREATE INDEX images_object ON images(object);
CREATE INDEX images_changed ON images(changed);
CREATE TABLE thumbnails(image bigint PRIMARY KEY, jpeg bytea NOT NULL);
CREATE TABLE removed(version bigint NOT NULL, image bigint, object bigint);
CREATE INDEX removed_version ON removed(version);
CREATE TABLE left_out(root bigint NOT NULL, path text NOT NULL, box text NOT NULL, bytes bigint,
  mtime bigint, content text, reason text NOT NULL, of bigint, PRIMARY KEY(root, path, box));
CREATE TABLE counters(name text PRIMARY KEY, last bigint NOT NULL);
INSERT INTO counters VALUES ('images', 0), ('objects', 0), ('roots', 0);
INSERT INTO meta VALUES ('version', '0'), ('generation', '1'), ('known_since', '0');
""",
)
FORMAT = len(STEPS)


def generation_tables(generation: int, dim: int) -> str:
    """The tables of one generation: the vectors (dim,) of one embedder, and what follows."""
    return f"""
CREATE TABLE IF NOT EXISTS vectors_{generation:d}(
  image bigint PRIMARY KEY, vector vector({dim:d}) NOT NULL);
CREATE TABLE IF NOT EXISTS sums_{generation:d}(
  object bigint NOT NULL, camera text COLLATE "C" NOT NULL, count bigint NOT NULL,
  total double precision[] NOT NULL, squares double precision NOT NULL, changed bigint NOT NULL,
  PRIMARY KEY(object, camera));
CREATE INDEX IF NOT EXISTS sums_{generation:d}_changed ON sums_{generation:d}(changed);
CREATE TABLE IF NOT EXISTS centroids_{generation:d}(
  object bigint PRIMARY KEY, count bigint NOT NULL, vector vector({dim:d}) NOT NULL);
"""
