"""Take telephone calls: media streams of Twilio and Telnyx, with their webhooks and signatures."""
