"""The Realtime protocol as a machine without I/O.

Client events and engine outputs go in, server events and engine commands come out. It imports no
event loop, no web framework and no torch, so it is tested as plain function calls and serves any
transport.

Where to look when something arrives (`machine` sends each to its room):

    a frame                      wire: parse and checks; dialects translate the beta shape first
    session.update               settings: update, audio and tools make a new config
    input_audio_buffer.*,        the ears hear it (user.hearing says what they must do); then user:
      what was heard in audio      turns, with listening for the open turn, user_items for what
                                   becomes of it, speculation for a reply begun in a pause, and
                                   idle for silence
    conversation.item.*          editing, on items: conversation, recordings; item_parse checks them
    response.create, .cancel     settings.request checks it; reply.responses begins it
    what the engine makes        reply: running finds its reply and ends it; speaking says it,
                                   calling calls; shortening leaves of it what was heard
    what the engine remembers    memory: feed keeps it equal to the items; replay tells them
    a model that takes no turns  duplex: its turns, responses and feed, in place of those above
    what all of them share       state: the configuration now, the conversation, the sound
    what a client may do when    moves, as tables
    how it looks on the wire     dialects: ga and beta, with items.item_json and response
    why a session ends           events.EndReason; a transport knows what number that is
"""
