"""Half-precision graphs: made from the torch network, and proven against float32."""
