package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A publisher is an MQTT 3.1.1 client that only publishes with QoS 1: what
// simulated sensors and the benchmark need, at little cost of its own. One
// goroutine may publish while another reads acknowledgements.
type publisher struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

const dialTime = 5 * time.Second

// dialMQTT connects without login and with a clean session.
func dialMQTT(ctx context.Context, address, clientID string) (*publisher, error) {
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	p := &publisher{conn: conn, r: bufio.NewReader(conn)}
	if err := p.connect(clientID); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return p, nil
}

func (p *publisher) connect(clientID string) error {
	_ = p.conn.SetDeadline(time.Now().Add(dialTime))
	body := append(mqttString(nil, "MQTT"), 4, 2, 0, 60) // level 4, clean session, keep alive 60 s
	body = mqttString(body, clientID)
	if _, err := p.conn.Write(append(mqttHeader(nil, 0x10, len(body)), body...)); err != nil {
		return err
	}
	var ack [4]byte
	if _, err := io.ReadFull(p.r, ack[:]); err != nil {
		return err
	}
	if ack[0] != 0x20 || ack[3] != 0 {
		return fmt.Errorf("refused with code %d", ack[3])
	}
	return p.conn.SetDeadline(time.Time{})
}

// publish sends one PUBLISH.
func (p *publisher) publish(topic string, id uint16, payload []byte) error {
	p.buf = mqttHeader(p.buf[:0], 0x32, 2+len(topic)+2+len(payload))
	p.buf = mqttString(p.buf, topic)
	p.buf = binary.BigEndian.AppendUint16(p.buf, id)
	p.buf = append(p.buf, payload...)
	_, err := p.conn.Write(p.buf)
	return err
}

// acked returns the packet id of the next acknowledgement.
func (p *publisher) acked() (uint16, error) {
	var ack [4]byte
	if _, err := io.ReadFull(p.r, ack[:]); err != nil {
		return 0, err
	}
	if ack[0] != 0x40 || ack[1] != 2 {
		return 0, fmt.Errorf("got packet 0x%02x, want PUBACK", ack[0])
	}
	return binary.BigEndian.Uint16(ack[2:]), nil
}

// close says goodbye.
func (p *publisher) close() {
	_, _ = p.conn.Write([]byte{0xe0, 0})
	_ = p.conn.Close()
}

func mqttHeader(b []byte, kind byte, length int) []byte {
	b = append(b, kind)
	for length > 127 {
		b = append(b, byte(length)|0x80)
		length >>= 7
	}
	return append(b, byte(length))
}

func mqttString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// A coapClient sends confirmable PUTs, one at a time, and retransmits them as
// RFC 7252 says.
type coapClient struct {
	conn net.Conn
	id   uint16
	in   [1500]byte
}

var errNoAnswer = errors.New("no answer")

func dialCoAP(address string, firstID uint16) (*coapClient, error) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return nil, err
	}
	return &coapClient{conn: conn, id: firstID}, nil
}

// put stores a text payload at a path of at most two short segments and
// returns when it is acknowledged with success.
func (c *coapClient) put(ctx context.Context, path []string, payload []byte) error {
	c.id++
	m := []byte{0x42, 3} // CON, token of 2, PUT
	m = binary.BigEndian.AppendUint16(m, c.id)
	m = binary.BigEndian.AppendUint16(m, c.id)
	option := byte(11) // Uri-Path; the next ones have delta 0
	for _, s := range path {
		if len(s) > 12 {
			m = append(m, option<<4|13, byte(len(s)-13))
		} else {
			m = append(m, option<<4|byte(len(s)))
		}
		m = append(m, s...)
		option = 0
	}
	m = append(m, 1<<4, 0xff) // Content-Format 0, payload
	m = append(m, payload...)
	for wait := 2 * time.Second; wait <= 32*time.Second; wait *= 2 {
		if _, err := c.conn.Write(m); err != nil {
			return err
		}
		code, err := c.answer(ctx, wait)
		switch {
		case errors.Is(err, errNoAnswer):
		case err != nil:
			return err
		case code>>5 != 2:
			return fmt.Errorf("answered %d.%02d", code>>5, code&31)
		default:
			return nil
		}
	}
	return errNoAnswer
}

// answer waits for the response to the last request.
func (c *coapClient) answer(ctx context.Context, wait time.Duration) (code byte, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	for {
		n, err := c.conn.Read(c.in[:])
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, errNoAnswer
		}
		if err != nil {
			return 0, err
		}
		m := c.in[:n]
		if n < 4 || m[1] == 0 { // an empty acknowledgement: the answer comes by itself
			continue
		}
		if m[0]&0x30 == 0 { // a confirmable answer wants an acknowledgement
			_, _ = c.conn.Write([]byte{0x60, 0, m[2], m[3]})
		}
		if m[0]&15 == 2 && n >= 6 && binary.BigEndian.Uint16(m[4:]) == c.id {
			return m[1], nil
		}
	}
}

func (c *coapClient) close() { _ = c.conn.Close() }
