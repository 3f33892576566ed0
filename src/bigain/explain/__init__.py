"""Why a method loses what it loses, and a look inside one forward."""
